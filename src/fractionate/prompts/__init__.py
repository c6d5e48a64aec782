"""Instructions as text files, one a role and answer form."""
