"""Programs that use the gate; the tests run them."""
