"""Pictures: timelines of events, models by score and cost, and the metrics of an evaluation, in one style.

Conventions: matplotlib is the extra "plot", which only this room imports. A picture is 90 or 180 mm wide, a
column or a page of a paper, and has text of at least 7 pt at that size; its suffix (png, svg or pdf) is its
format. Colours can be told apart with any kind of colour vision, every axis has its unit, and the same input
gives the same file, whatever the user's matplotlibrc says. Labels are drawn as they are, never as formulas.
"""
