"""`python -m bench`: run every measurement and print its table."""

from bench import cold_start, engine, http, jobs, layers, preview_speeds, scale, store_requests, voices

if __name__ == "__main__":
    for measurement in (layers, preview_speeds, voices, cold_start, engine, http, jobs, scale, store_requests):
        print(measurement.main(), end="\n\n")
