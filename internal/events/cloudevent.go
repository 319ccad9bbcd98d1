package events

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"
)

// cloudEvent is the structured JSON of CloudEvents 1.0.
type cloudEvent struct {
	SpecVersion     string                     `json:"specversion"`
	ID              string                     `json:"id"`
	Source          string                     `json:"source"`
	Type            string                     `json:"type"`
	Time            time.Time                  `json:"time,omitzero"`
	Subject         string                     `json:"subject,omitempty"`
	DataContentType string                     `json:"datacontenttype"`
	Data            map[string]json.RawMessage `json:"data"`
}

// urlField is the field of the data with the address in the Web UI.
const urlField = "url"

// encode returns the event as it is sent. It is the same for the same event.
func (s Settings) encode(e Event) ([]byte, error) {
	for name, value := range map[string]string{"id": e.ID, "type": e.Type, "namespace": e.Namespace, "workflowId": e.WorkflowID, "runId": e.RunID} {
		if value == "" {
			return nil, fmt.Errorf("its %s is missing", name)
		}
	}
	var data map[string]json.RawMessage
	if json.Unmarshal(e.Data, &data) != nil || data == nil {
		return nil, errors.New("its data is not a JSON object")
	}
	workflow := "/namespaces/" + url.PathEscape(e.Namespace) + "/workflows/" + url.PathEscape(e.WorkflowID)
	if s.WebUI != "" {
		link, err := json.Marshal(s.WebUI + workflow + "/" + url.PathEscape(e.RunID) + "/history")
		if err != nil {
			return nil, err
		}
		data[urlField] = link
	}
	return json.Marshal(cloudEvent{
		SpecVersion: "1.0", ID: headerText(e.ID), Source: workflow, Type: e.Type, Time: e.Time.UTC(), Subject: e.Subject,
		DataContentType: "application/json", Data: data,
	})
}

// headerText is a text as a header can carry it: what is not visible ASCII is
// escaped, because receivers decode it differently and would not find it signed.
func headerText(text string) string {
	var b strings.Builder
	for _, c := range []byte(text) {
		if c <= ' ' || c > '~' || c == '%' {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}
