"""What a promise of capacity rests on: room to move, who follows, and what fails together."""
