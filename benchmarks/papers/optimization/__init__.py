"""Models made smaller before they are sent: what is made smaller, how, and what came of it."""
