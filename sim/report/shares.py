"""A share of counted things in words, with what chance alone allows: "0.0 % (0 of 184; 95 %: 0.0 to 2.0 %)"."""

from __future__ import annotations

from trading.results.kpis import CONFIDENCE, Figure, share_of


def share_text(figure: Figure) -> str:
    """A Figure of trading.results.kpis.share_of in words; its note where there is none."""
    if figure.value is None or figure.hits is None or figure.low is None or figure.high is None:
        return figure.note or "no figure"
    interval = f"{CONFIDENCE:.0%}".replace("%", " %") + f": {100 * figure.low:.1f} to {100 * figure.high:.1f} %"
    return f"{100 * figure.value:.1f} % ({figure.hits:,} of {figure.sample:,}; {interval})"


def counted(hits: int, sample: int) -> str:
    """`hits` of `sample` in words, with the interval."""
    return share_text(share_of(hits, sample, f"{hits} of {sample}"))
