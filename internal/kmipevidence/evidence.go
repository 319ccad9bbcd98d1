package kmipevidence

import (
	"fmt"
	"time"

	"github.com/ovh/kmip-go"
	"github.com/ovh/kmip-go/ttlv"
)

// Outcome says what asking about a key led to.
type Outcome string

const (
	// OutcomeWitnessed: the KMIP server has the key.
	OutcomeWitnessed Outcome = "witnessed"
	// OutcomeAbsent: the KMIP server knows no such key, or has destroyed it. A
	// server may also answer so about a key that this client may not see.
	OutcomeAbsent Outcome = "absent"
	// OutcomeForbidden: the KMIP server does not let this client see the key.
	// Many servers show a key only to the client that made it, so this is no
	// fault of the key.
	OutcomeForbidden Outcome = "forbidden"
	// OutcomeUnreachable: no usable answer. Nothing is known about the key.
	OutcomeUnreachable Outcome = "unreachable"
)

// States of a key, as the KMIP specification names them.
const (
	StatePreActive            = "Pre-Active"            // may not be used yet
	StateActive               = "Active"                // in use
	StateDeactivated          = "Deactivated"           // may decrypt only
	StateCompromised          = "Compromised"           // may be known to others
	StateDestroyed            = "Destroyed"             // the key is gone
	StateDestroyedCompromised = "Destroyed Compromised" // the key is gone, and may be known to others
)

// maxNameLength bounds Evidence.Name, in characters: it goes into histories, and
// KMIP sets no limit.
const maxNameLength = 200

// Evidence is what a KMIP server says about one key. Fields that the server does
// not state are empty, and left out of the JSON. Times are in UTC; those of the
// key are whole seconds by the KMIP server's clock.
type Evidence struct {
	// Outcome says whether the server has the key.
	Outcome Outcome `json:"outcome"`
	// State is one of the State constants, or a number in hexadecimal for a
	// state that KMIP 1.4 does not know.
	State string `json:"state,omitempty"`
	// InitialDate is when the server made or registered the key.
	InitialDate *time.Time `json:"initialDate,omitempty"`
	// ActivationDate is when the key became or becomes active.
	ActivationDate *time.Time `json:"activationDate,omitempty"`
	// Algorithm is the KMIP name, such as "AES".
	Algorithm string `json:"algorithm,omitempty"`
	// Length is in bits.
	Length int `json:"length,omitempty"`
	// Name is the first name of the key, up to 200 characters.
	Name string `json:"name,omitempty"`
	// AskedAt is by this machine's clock, or by Temporal's in a record, in whole
	// milliseconds.
	AskedAt time.Time `json:"askedAt,omitzero"`
	// Message says why the outcome is not "witnessed", in words for a log. It
	// holds no secret and is no part of a record.
	Message string `json:"-"`
}

// requestedAttributes are all that is ever asked about a key.
var requestedAttributes = []kmip.AttributeName{
	kmip.AttributeNameObjectType,
	kmip.AttributeNameState,
	kmip.AttributeNameInitialDate,
	kmip.AttributeNameActivationDate,
	kmip.AttributeNameCryptographicAlgorithm,
	kmip.AttributeNameCryptographicLength,
	kmip.AttributeNameName,
}

// add takes over what the attributes say and decides the outcome by it.
func (e *Evidence) add(attributes []kmip.Attribute) {
	e.Outcome = OutcomeWitnessed
	for _, attribute := range attributes {
		switch value := attribute.AttributeValue.(type) {
		case kmip.ObjectType:
			if value != kmip.ObjectTypeSymmetricKey {
				e.Outcome = OutcomeAbsent
				e.Message = fmt.Sprintf("the id is that of an object of the type %s, not of a symmetric key", enumName(value))
			}
		case kmip.State:
			e.State = stateName(value)
			if value == kmip.StateDestroyed || value == kmip.StateDestroyedCompromised {
				e.Outcome = OutcomeAbsent
				e.Message = "the KMIP server has destroyed the key and kept its attributes"
			}
		case time.Time:
			e.addDate(attribute.AttributeName, value)
		case kmip.CryptographicAlgorithm:
			e.Algorithm = enumName(value)
		case int32:
			if attribute.AttributeName == kmip.AttributeNameCryptographicLength {
				e.Length = int(value)
			}
		case kmip.Name:
			if e.Name == "" {
				e.Name = shorten(value.NameValue, maxNameLength)
			}
		}
	}
}

func (e *Evidence) addDate(name kmip.AttributeName, value time.Time) {
	value = value.UTC()
	switch name {
	case kmip.AttributeNameInitialDate:
		e.InitialDate = &value
	case kmip.AttributeNameActivationDate:
		e.ActivationDate = &value
	}
}

func stateName(state kmip.State) string {
	switch state {
	case kmip.StatePreActive:
		return StatePreActive
	case kmip.StateDestroyedCompromised:
		return StateDestroyedCompromised
	}
	return enumName(state)
}

// enumName returns the library's name of a value, or its number in hexadecimal.
func enumName[T ~uint32](value T) string {
	if name := ttlv.EnumStr(value); name != "" {
		return name
	}
	return fmt.Sprintf("0x%08x", uint32(value))
}
