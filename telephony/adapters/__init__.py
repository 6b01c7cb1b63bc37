"""One module for each SIP platform: from the documents it emits to a SourceCall."""
