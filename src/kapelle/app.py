"""Joins the rooms: the only file that knows them all."""
