package workflows

// This file is what a rotation of any kind sees of a cluster's targets.

func (t *TargetRecord) id() string    { return t.ClusterID }
func (t *TargetRecord) label() string { return t.Name }

func (t *TargetRecord) names() []string { return []string{t.Name, t.ClusterID} }

func (t *TargetRecord) fields() targetFields { return targetFields{&t.Status, &t.Error, &t.FirstError} }

func (t *TargetRecord) isDone() bool        { return t.Status == StatusVerified }
func (t *TargetRecord) isCarriedOver() bool { return t.CarriedOver }

// mayHaveChanged: a target has an attempt before its PUT is sent; one that was
// carried over has those of an earlier run.
func (t *TargetRecord) mayHaveChanged() bool { return t.Attempts > 0 && !t.CarriedOver }

func (t *TargetRecord) prepareRetry() {
	if t.Error != nil && t.Error.Type == ErrorKeyUnchanged {
		t.RotatedAt = nil  // that PUT came to nothing
		t.Ambiguous = true // as far as anybody knows by now
	}
}

func (t *TargetRecord) cells() []string { return []string{t.PreviousKeyUUID, t.NewKeyUUID} }
