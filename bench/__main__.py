"""`python -m bench`: run every measurement and print its table."""

from bench import cold_start, engine, layers, preview_speeds

if __name__ == "__main__":
    for measurement in (layers, preview_speeds, cold_start, engine):
        print(measurement.main(), end="\n\n")
