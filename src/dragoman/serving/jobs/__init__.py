"""Jobs of people's own programs (FloydHub's serve mode): their records, files, environments, and the loop that runs them."""
