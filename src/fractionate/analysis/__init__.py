"""From measured cells to knowledge: statistics, comparisons, costs, the verdict. It needs no engine and no model."""
