"""The pages of the site, as tests read and follow them."""
