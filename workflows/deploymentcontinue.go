package workflows

import "slices"

// ProcessRecordsToContinue returns the records that a rotation of deployments
// continues from, as RotateDeploymentInput.Completed: those of the processes for which
// a time may have been published. A process whose key was shown not to have changed
// is left out: it has to be rotated again. Errors are left out, too; other texts and
// evidence are as far as they fit into an input.
func ProcessRecordsToContinue(records []ProcessRecord) []ProcessRecord {
	var completed []ProcessRecord
	for _, record := range records {
		keyUnchanged := record.Error != nil && record.Error.Type == ErrorKeyUnchanged
		if record.RotateAt == nil || keyUnchanged {
			continue
		}
		record.Error, record.FirstError, record.compact = nil, nil, false
		completed = append(completed, record)
	}
	return fittingProcesses(completed)
}

// fittingProcesses are records that fit into the input of a rotation.
func fittingProcesses(records []ProcessRecord) []ProcessRecord {
	result := RotateDeploymentResult{Targets: slices.Clone(records)}
	result.fit(maxPayload)
	return result.Targets
}
