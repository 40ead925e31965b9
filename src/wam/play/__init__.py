"""An episode that a person steers and watches while it runs: a stepping loop, a thread around it, a page before it."""
