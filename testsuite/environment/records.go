package environment

import (
	"fmt"

	"keyturn/testsuite/simulator"
	"keyturn/workflows"
)

// CheckRecords compares every record with the simulator's own ledger: at most
// one PUT applied for each target, and nothing claimed that it does not hold.
func CheckRecords(ledger simulator.Ledger, records []workflows.TargetRecord) error {
	if puts := ledger.PutsOnParents(); len(puts) > 0 {
		return fmt.Errorf("%d PUTs named a sharded cluster as a whole", len(puts))
	}
	for _, record := range records {
		if err := checkRecord(ledger.Applied(record.ClusterID), record); err != nil {
			return fmt.Errorf("%s (%s): %w", record.Name, record.Status, err)
		}
	}
	return nil
}

func checkRecord(applied []simulator.Rotation, record workflows.TargetRecord) error {
	switch {
	case len(applied) > 1:
		return fmt.Errorf("%d PUTs were applied", len(applied))
	case record.Status != workflows.StatusVerified || record.CarriedOver:
		return nil
	case len(applied) == 0:
		return fmt.Errorf("no PUT was applied")
	case record.PreviousKeyUUID != applied[0].PreviousKey:
		return fmt.Errorf("its previous key is recorded as %s, and was %s", record.PreviousKeyUUID, applied[0].PreviousKey)
	case record.NewKeyUUID != applied[0].NewKey:
		return fmt.Errorf("its new key is recorded as %s, and is %s", record.NewKeyUUID, applied[0].NewKey)
	case record.RotatedAt == nil || record.VerifiedAt == nil:
		return fmt.Errorf("it has no time of rotating or verifying")
	}
	return nil
}
