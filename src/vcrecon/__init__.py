"""vcrecon: turns a rack of plain servers into virtual clusters and keeps them alive."""
