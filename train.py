"""Train a model on a prepared data set: `python train.py experiment=golf_gpt2 model=gpt2_124m`; see --help."""

from fieldtune.launch import main

if __name__ == "__main__":
    main("train")
