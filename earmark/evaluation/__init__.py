"""What a network answers on many clips, and how right that is."""
