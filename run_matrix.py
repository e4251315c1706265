"""Compare fine-tuning recipes: quality × time × memory. `python run_matrix.py --help` teaches the rest."""

from bench.commands.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
