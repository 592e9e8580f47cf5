"""The context engine: what is learned in words. No torch here."""
