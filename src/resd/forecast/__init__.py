"""How long a run will take and how much memory it needs, told before it starts: `resd train --dry-run`."""
