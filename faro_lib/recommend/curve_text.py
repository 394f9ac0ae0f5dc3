"""The curve of `faro recommend` as text, which needs no package for figures."""

import pandas as pd

from faro_lib.metrics.measures import share_of_accepted


def met_by(violations: float | None) -> str:
    return "meets every SLO" if violations is None else f"meets {100 * violations:g} % for every job"


def notes(violations: float | None, knee: int | None = None, needed: int | None = None) -> dict[int, str]:
    """Capacity -> the text that marks it in the curve.

    >>> notes(None, knee=12, needed=12), notes(0.05, knee=None, needed=16)
    ({12: 'knee, meets every SLO'}, {16: 'meets 5 % for every job'})
    """
    texts: dict[int, str] = {}
    for capacity, text in ((knee, "knee"), (needed, met_by(violations))):
        if capacity is not None:
            texts[capacity] = f"{texts[capacity]}, {text}" if capacity in texts else text
    return texts


def bars(curve: pd.DataFrame, notes: dict[int, str], width: int = 40) -> str:
    """The curve as text: for each capacity a bar, violations in % of the accepted rate, the worst job and any note.

    >>> curve = pd.DataFrame({"capacity_cores": [8, 16], "slo_violation_rate": [0.5, 0.01], "worst_job": "a"})
    >>> print(bars(curve.assign(accepted_rate=0.02), {16: "meets 2 %"}, 8))
           8  ████████ 2500 % (a: 50 of 2 %)
          16  ▏ 50 % (a: 1 of 2 %)  <- meets 2 %
    """
    shares = share_of_accepted(curve)
    most = max(shares.max(), 1e-9)
    lines = []
    for row, share in zip(curve.to_dict("records"), shares):
        capacity, rate, accepted = row["capacity_cores"], row["slo_violation_rate"], row["accepted_rate"]
        eighths = max(round(8 * width * share / most), int(share > 0))
        bar = "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()
        note = f"  <- {notes[capacity]}" if capacity in notes else ""
        of = f"{row['worst_job']}: {round(100 * rate, 2):g} of {round(100 * accepted, 4):g} %"
        lines.append(f"{capacity:8d}  {bar} {100 * share:.0f} % ({of}){note}")
    return "\n".join(lines)
