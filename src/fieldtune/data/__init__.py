"""From messages to ids, from rows to optimizer steps."""
