package workflows

import (
	"encoding/json"
	"errors"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keyturn/testsuite/support/schemas"
)

// At each limit that a schema states, and beyond it, the worker agrees. So neither can
// change alone. The tests of whole workflows compare all other inputs, see fixture.
func TestSchemasAgreeWithTheWorkerAtEachLimit(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 26, 4, 0, 0, 0, time.UTC)
	id := "5196d3628d022db4cbc26d9e"
	fleetOfDeployments := map[string]any{"kind": "deployment"}
	for name, c := range map[string]struct {
		schema string
		input  map[string]any // which is valid
		parse  func(text string) error
	}{
		"cluster": {"rotate-cluster-input.json", map[string]any{"projectId": id, "clusterId": id}, func(text string) error {
			_, err := parseRotateClusterInput(rawJSON(text), now)
			return err
		}},
		"deployment": {"rotate-deployment-input.json", map[string]any{"projectId": id}, func(text string) error {
			_, err := parseRotateDeploymentInput(rawJSON(text), now)
			return err
		}},
		"fleet": {"rotate-fleet-input.json", map[string]any{}, func(text string) error {
			_, err := parseRotateFleetInput(rawJSON(text))
			return err
		}},
		"fleet of deployments": {"rotate-fleet-input.json", fleetOfDeployments, func(text string) error {
			_, err := parseRotateFleetInput(rawJSON(text))
			return err
		}},
		"clusters": {"list-clusters-input.json", map[string]any{}, func(text string) error {
			_, err := parseListClustersInput(rawJSON(text))
			return err
		}},
		"keys": {"list-keys-input.json", map[string]any{}, func(text string) error {
			_, err := parseListKeysInput(rawJSON(text))
			return err
		}},
		"approve": {"approve-request.json", map[string]any{"by": "lee"}, parseAs[ApproveRequest]},
		"pause":   {"operator-request.json", map[string]any{"by": "lee"}, parseAs[OperatorRequest]},
		"retry":   {"retry-request.json", map[string]any{"by": "lee"}, parseAs[RetryRequest]},
		"skip":    {"skip-request.json", map[string]any{"by": "lee", "targets": []any{"orders-0"}}, parseAs[SkipRequest]},
	} {
		t.Run(name, func(t *testing.T) {
			objects, err := schemas.Properties(c.schema)
			require.NoError(t, err)
			compared, refused := 0, 0
			compare := func(path string, field string, value any) {
				input := with(c.input, path, field, value)
				for _, record := range recordsOf(input) {
					addTarget(record, objects["completed[]"])
				}
				text, err := json.Marshal(input)
				require.NoError(t, err)
				refusal := ""
				if err := c.parse(string(text)); err != nil {
					refusal = err.Error()
					refused++
				}
				assert.NoError(t, schemas.Compare(c.schema, text, refusal))
				compared++
			}
			for path, properties := range objects {
				compare(path, "unknownField", 1)
				for _, property := range properties {
					for _, value := range candidates(property) {
						compare(path, property.Name, value)
					}
				}
			}
			assert.Greater(t, compared, 30)
			assert.Greater(t, refused, compared/4)
		})
	}
}

// parseAs takes and refuses what an update does, whatever the rotation is doing.
func parseAs[R operatorRequest](text string) error {
	request, err := parseRequest[R](rawJSON(text))
	if err != nil {
		return err
	}
	if skip, isSkip := any(request).(SkipRequest); isSkip && len(skip.Targets) == 0 {
		return errors.New("targets: is required")
	}
	return validateComment(request)
}

// with returns an input with a value in a field of the object at a path.
func with(input map[string]any, path, field string, value any) map[string]any {
	input = maps.Clone(input)
	if path == "" {
		input[field] = value
		return input
	}
	object := map[string]any{field: value}
	names := strings.Split(path, ".")
	for i := len(names) - 1; i >= 0; i-- {
		name, isList := strings.CutSuffix(names[i], "[]")
		var inside any = object
		if isList {
			inside = []any{object}
		}
		object = map[string]any{name: inside}
	}
	maps.Copy(input, object)
	return input
}

func recordsOf(input map[string]any) (records []map[string]any) {
	if list, isList := input["completed"].([]any); isList && len(list) == 1 {
		if record, isRecord := list[0].(map[string]any); isRecord && len(record) > 0 {
			records = append(records, record)
		}
	}
	return records
}

// addTarget has a record name its target, without which it is refused.
func addTarget(record map[string]any, properties []schemas.Property) {
	for _, p := range properties {
		_, found := record[p.Name]
		switch {
		case found:
		case p.Name == "process":
			record[p.Name] = "orders-0"
		case p.Name == "clusterId":
			record[p.Name] = "5196e5b0e4b0fca9cc88334a"
		}
	}
}

// candidates are values of every type, and those at the limits of a property.
func candidates(p schemas.Property) []any {
	values := []any{nil, true, 1, -1, 0, 1.5, "", "x", "1h", "+1.5h", "-0", "1d2h", "1d2d", "9", " ", []any{}, map[string]any{}, "a\x1bb", "a\u0085b", "a\x7fb", "a\nb", strings.Repeat("5196e5b0e4b0fca9cc88334A", 2)}
	values = append(values, p.Enum...)
	for _, limit := range []*float64{p.Minimum, p.Maximum} {
		if limit != nil {
			values = append(values, *limit-1, *limit, *limit+1)
		}
	}
	if p.MaxLength != nil {
		values = append(values, strings.Repeat("ä", *p.MaxLength), strings.Repeat("ä", *p.MaxLength+1))
	}
	if p.MaxItems != nil && p.Items != nil && p.Items.Pattern != "" {
		values = append(values, []any{"x"}, []any{"5196e5b0e4b0fca9cc88334A"}, []any{nil}, []any{1}, many("5196e5b0e4b0fca9cc88334a", *p.MaxItems+1))
	}
	if p.MaxItems != nil && p.Items != nil && p.Items.Pattern == "" {
		values = append(values, []any{map[string]any{}}, many(map[string]any{}, *p.MaxItems+1))
	}
	return values
}

func many(value any, n int) []any {
	list := make([]any, n)
	for i := range list {
		list[i] = value
	}
	return list
}
