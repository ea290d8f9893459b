"""Evaluate a finished run on held-out rows: `python evaluate.py experiment=golf_gpt2` or `run=latest`; see --help."""

from fieldtune.launch import main

if __name__ == "__main__":
    main("evaluate")
