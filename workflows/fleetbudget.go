package workflows

import "slices"

const (
	// maxFleetRecords limits a fleet's records, in bytes of JSON. It leaves room
	// for what else goes with them: the clusters in progress, and those listed
	// ahead where the fleet continues as new.
	maxFleetRecords = maxPayload - 400_000
	// maxFleetAnswer limits the records in the response to an update. The query
	// returns more of them.
	maxFleetAnswer = maxUpdateAnswer / 2
)

// fit makes a copy of a fleet's records fit into limit bytes of JSON. Texts are
// shortened first, then the actions become fewer, then the lists of clusters.
func (r *RotateFleetResult) fit(limit int) {
	r.Failures, r.LeftOut, r.Actions = slices.Clone(r.Failures), slices.Clone(r.LeftOut), slices.Clone(r.Actions)
	for i := range r.Failures {
		r.Failures[i].Error = r.Failures[i].Error.cloned()
	}
	for _, actions := range []int{maxActions, maxActions / 4, maxActions / 20} {
		r.actionLog().keepNewest(actions)
		if r.shortenToFit(limit) {
			return
		}
	}
	for len(r.Failures)+len(r.LeftOut) > 0 && !r.shortenToFit(limit) {
		failures, leftOut := len(r.Failures)/2, len(r.LeftOut)/2
		r.FailuresNotListed += len(r.Failures) - failures
		r.LeftOutNotListed += len(r.LeftOut) - leftOut
		r.Failures, r.LeftOut = r.Failures[:failures], r.LeftOut[:leftOut]
	}
}

// shortenToFit shortens texts and reports whether the records fit then.
func (r *RotateFleetResult) shortenToFit(limit int) bool {
	texts := textsOfActions(r.Actions)
	for i := range r.Failures {
		failed := &r.Failures[i]
		texts = append(texts, &failed.ClusterName)
		if failed.Error != nil {
			texts = append(texts, &failed.Error.Message)
		}
	}
	for i := range r.LeftOut {
		texts = append(texts, &r.LeftOut[i].ClusterName)
	}
	return shortenTexts(texts, limit-r.bytesWithout(texts))
}

// bytesWithout is the number of bytes of the records' JSON without these texts.
func (r *RotateFleetResult) bytesWithout(texts []*string) int {
	kept := make([]string, len(texts))
	for i, text := range texts {
		kept[i] = *text
		*text = "x" // an empty one may be left out together with its name
	}
	bytes := jsonBytes(r)
	for i, text := range texts {
		*text = kept[i]
	}
	return bytes
}

func (r *RotateFleetResult) actionLog() actionLog {
	return actionLog{actions: &r.Actions, notListed: &r.ActionsNotListed}
}
