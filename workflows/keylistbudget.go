package workflows

import "slices"

const (
	// maxKeyListPages limits the pages that a result of ListKeys lists, in bytes of
	// JSON: a workflow ID may be long.
	maxKeyListPages = 1_400_000
	// maxKeyList limits the whole result where it goes with an input and the
	// projects that are listed ahead.
	maxKeyList = maxPayload - 100_000
)

// fit makes a copy of a listing's result fit into limit bytes of JSON. Texts are
// shortened first, then the actions become fewer.
func (r *ListKeysResult) fit(limit int) {
	var noApproval *Approval
	budget{
		texts: r.cloneTexts(), approval: &noApproval, actions: actionLog{actions: &r.Actions, notListed: &r.ActionsNotListed}, bytes: r.bytesWithoutTexts,
	}.fit(limit)
}

// cloneTexts returns the texts of the reasons, which, like the actions, become
// copies.
func (r *ListKeysResult) cloneTexts() (texts []*string) {
	r.Reasons, r.Actions = slices.Clone(r.Reasons), slices.Clone(r.Actions)
	for i := range r.Reasons {
		texts = append(texts, &r.Reasons[i].Message, &r.Reasons[i].ClusterName)
	}
	return texts
}

func (r *ListKeysResult) bytesWithoutTexts() int {
	rest := *r
	for _, text := range append(rest.cloneTexts(), textsOfActions(rest.Actions)...) {
		*text = "x" // an empty one may be left out together with its name
	}
	return jsonBytes(rest)
}
