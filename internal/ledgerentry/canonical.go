package ledgerentry

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"

	"github.com/go-json-experiment/json/jsontext"
)

// maxExactInteger is the largest integer that canonical JSON, whose numbers are
// IEEE 754 doubles, distinguishes from its neighbors.
var maxExactInteger = big.NewInt(1<<53 - 1)

// Canonicalize returns the canonical form of a JSON text (RFC 8785). It refuses
// what has none: malformed JSON, a member that occurs twice, invalid UTF-8, a
// lone surrogate; and nesting deeper than the library allows (10,000). A number
// out of a double's range becomes the largest double: see requireExactNumbers.
func Canonicalize(text []byte) ([]byte, error) {
	value := jsontext.Value(bytes.Clone(text))
	if err := value.Canonicalize(); err != nil {
		return nil, err
	}
	return value, nil
}

// requireExactNumbers refuses numbers that canonicalization would change to
// others without notice: integers between doubles, and what is out of range.
func requireExactNumbers(text []byte) error {
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	for {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		number, ok := token.(json.Number)
		if !ok {
			continue
		}
		if _, err := number.Float64(); err != nil {
			return fmt.Errorf("the number %.40s is out of range", number)
		}
		integer, ok := new(big.Int).SetString(number.String(), 10)
		if ok && integer.CmpAbs(maxExactInteger) > 0 {
			return fmt.Errorf("the integer %s is beyond ±(2^53-1): write it as a string", number)
		}
	}
}
