"""Who gets which bytes: requests, credentials, rates, and files that are proved whole."""
