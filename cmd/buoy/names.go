package main

import "math/rand/v2"

var (
	firstNames = [...]string{
		"amber", "ample", "azure", "brave", "breezy", "bright", "brisk", "calm", "candid", "clever", "copper", "coral",
		"crisp", "dapper", "eager", "early", "easy", "fair", "fleet", "fond", "frank", "fresh", "gentle", "glad",
		"golden", "grand", "happy", "hardy", "hasty", "ivory", "jolly", "keen", "kind", "lively", "lucky", "mellow",
		"merry", "mild", "misty", "neat", "nimble", "noble", "patient", "plain", "proud", "quick", "quiet", "rapid",
		"ready", "rosy", "royal", "salty", "sandy", "silver", "sleek", "snug", "solid", "spry", "steady", "sunny",
		"swift", "tidy", "vivid", "warm",
	}
	lastNames = [...]string{
		"anchor", "barge", "bay", "beacon", "boom", "bosun", "breeze", "brig", "bridge", "cabin", "canoe", "canvas",
		"capstan", "cargo", "chart", "cleat", "clipper", "coast", "compass", "cove", "crane", "current", "cutter", "deck",
		"dinghy", "dock", "ferry", "fjord", "galley", "gull", "harbor", "hatch", "hawser", "helm", "heron", "hull",
		"island", "jetty", "kayak", "keel", "ketch", "lagoon", "lantern", "lighter", "mast", "mooring", "oar", "osprey",
		"pelican", "pier", "pilot", "quay", "raft", "reef", "rigging", "rudder", "sail", "schooner", "sextant", "shore",
		"sloop", "tide", "tug", "wharf",
	}
)

// randomName is a name for a container that was given none.
func randomName() string {
	return firstNames[rand.IntN(len(firstNames))] + "-" + lastNames[rand.IntN(len(lastNames))]
}
