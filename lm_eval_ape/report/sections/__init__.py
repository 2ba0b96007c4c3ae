"""The sections of the page, in their order.

A section is a module with `build(material, figures)`, which gives a `Section` or None where there is nothing to show,
and a template of the section's name in `assets/sections`. To add one, add both, and the module to the list here.
"""

from lm_eval_ape.report.sections import (
    analysis,
    board,
    calibrations,
    divergence,
    lengths,
    provenance,
    recomputation,
    samples,
)

SECTIONS = (board, lengths, divergence, recomputation, calibrations, analysis, samples, provenance)
