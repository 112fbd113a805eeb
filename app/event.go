package app

import "time"

// EventType groups events.
type EventType string

// The types.
const (
	Rescale    EventType = "scaling"
	HealthOf   EventType = "health"
	Configured EventType = "config"
	Trouble    EventType = "error"
	Life       EventType = "lifecycle"
	OfHost     EventType = "host"
)

// Event is something that happened.
type Event struct {
	ID      int64          `json:"id"` // counts up, over all apps and hosts
	Time    time.Time      `json:"time"`
	Type    EventType      `json:"type"`
	App     string         `json:"app,omitempty"`
	Host    string         `json:"host,omitempty"`
	Replica string         `json:"replica,omitempty"` // launch id
	Message string         `json:"message"`           // a sentence
	Details map[string]any `json:"details,omitempty"`
}

// EventQuery selects events; zero fields select all.
type EventQuery struct {
	App, Host string
	Type      EventType
	Since     time.Time
	After     int64 // those with a larger id
	Limit     int   // the newest so many; 0: 100
}
