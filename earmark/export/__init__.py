"""From a trained network to the file that users run."""
