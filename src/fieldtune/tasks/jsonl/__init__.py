"""Anyone's own data: chat JSON Lines, Alpaca JSON or CSV, without code."""
