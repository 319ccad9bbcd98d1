package main

import (
	"time"

	"keyturn/internal/events"
	"keyturn/internal/setting"
	"keyturn/internal/version"
)

// readEvents returns the sender of events; nil = the worker sends none.
func readEvents(env setting.Environment) (*events.Sender, error) {
	s, err := events.ReadSettings(env)
	if err != nil || !s.Configured() {
		return nil, err
	}
	s.UserAgent = "keyturn/" + version.String()
	return events.NewSender(s)
}

// eventStatus warns of secrets that cannot be used, and of a receiver that has not
// accepted the last event. Neither makes the worker unready: no rotation needs events.
func eventStatus(sender *events.Sender) checkStatus {
	var warnings []string
	if problem := sender.FilesProblem(); problem != nil {
		warnings = append(warnings, problem.Error())
	}
	if problem, at := sender.Problem(); problem != "" {
		warnings = append(warnings, "the last event was not delivered at "+at.UTC().Format(time.RFC3339)+": "+problem)
	}
	return checkStatus{OK: true, Warning: allOf(warnings...)}
}
