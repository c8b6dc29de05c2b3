"""`python -m bench`: run every measurement and print its table."""

from bench import cold_start, engine, layers, preview_speeds, voices

if __name__ == "__main__":
    for measurement in (layers, preview_speeds, voices, cold_start, engine):
        print(measurement.main(), end="\n\n")
