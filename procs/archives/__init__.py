"""Files of other programs and of venues' download pages: recognised, read within bounds, made recordings or candles."""
