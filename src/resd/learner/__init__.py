"""From training examples to new weights: layout, student and teacher forwards, loss, optimizer."""
