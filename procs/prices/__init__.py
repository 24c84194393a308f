"""Prices and candles of the outside world, for people and slow decisions: fetched, cached, with fallbacks, never invented.

    answer     what is answered, and every error that can come instead
    budget     requests that a venue bears, shared by all who ask it
    endpoints  one address of one venue, through ccxt
    trades     candles from trades that we have: a recording, or a running pipeline
    source     PriceSource: cache, one request for many callers, fallbacks in order

What this package is not: an input of the pipeline. Decisions are made on the feed's own books and trades alone.
"""
