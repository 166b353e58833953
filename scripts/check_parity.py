"""Compare the published networks with what the official code gave, fixture by fixture, and print the table.

    python scripts/check_parity.py [NETWORK...]

The fixtures are those of the tests, which hold every one to 1e-4 of the range of the official values.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import parity


def main() -> None:
    """Print a row for each array of each fixture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", metavar="NETWORK", help=", ".join(parity.NETS))
    networks = parser.parse_args().networks
    if unknown := set(networks) - set(parity.NETS):
        parser.error(f"no such network: {', '.join(sorted(unknown))}; there are {', '.join(parity.NETS)}")
    print("| fixture | array | largest difference | of the range |\n|---|---|---:|---:|")
    for net in networks or parity.NETS:
        for found in parity.measured(net):
            print(f"| {found.fixture} | {found.array} | {found.largest:.1e} | {found.relative:.1e} |", flush=True)


if __name__ == "__main__":
    main()
