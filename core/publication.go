package core

// A Publication is a message under way, with the answer owed.
type Publication struct{}
