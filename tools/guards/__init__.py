"""Lines that prevent known failures of such servers, with the tests that notice when one is gone."""
