"""Drawn people: films of exercises and stills of throws that can be made anywhere, in seconds, without a camera."""
