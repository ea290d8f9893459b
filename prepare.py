"""Make the data set of an experiment: `python prepare.py experiment=golf_gpt2 data.count=1000`; see --help."""

from fieldtune.launch import main

if __name__ == "__main__":
    main("prepare")
