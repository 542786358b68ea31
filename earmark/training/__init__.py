"""Recipes, losses, schedules, and the loop that trains every network.

Conventions: ``run`` trains a recipe from clips to a model file, ``trainer`` one network. A random draw is a
function of (seed, epoch, step), so that a killed run resumes with the same result.
"""
