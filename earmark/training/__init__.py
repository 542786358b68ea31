"""Recipes, losses, schedules, and the loop that trains every network."""
