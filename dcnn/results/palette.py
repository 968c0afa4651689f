"""Colours of figures and pages, each with a light and a dark shade."""

from collections.abc import Mapping

# Shades on light and on dark paper, after M. Okabe and K. Ito, Color Universal Design (2008);
# yellow, which white paper swallows, gives way to wine and olive.
PALETTE: Mapping[str, tuple[str, str]] = {
    "ink": ("#1d2329", "#e4e8ec"),
    "soft": ("#5b6570", "#a7b1bb"),
    "rule": ("#d9dee3", "#39414a"),
    "paper": ("#fffffe", "#181c21"),
    "blue": ("#0072b2", "#58aee6"),
    "vermillion": ("#d55e00", "#f5884a"),
    "green": ("#009e73", "#35c99b"),
    "orange": ("#e69f00", "#f0b429"),
    "purple": ("#cc79a7", "#e29ac4"),
    "sky": ("#56b4e9", "#9ad5f7"),
    "wine": ("#882255", "#d0709f"),
    "olive": ("#7d7a00", "#b9b54a"),
    "grey": ("#848d96", "#8d97a1"),
}
VERDICT_COLOURS: Mapping[str, str] = {
    "baseline": "ink", "better": "blue", "worse": "vermillion", "equivalent": "green",
    "undecided": "grey", "too few seeds": "grey"}
