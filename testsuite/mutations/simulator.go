package main

func simulatorTests(named string) []string { return []string{"./testsuite/simulator", "-run", named} }

// simulatorMutations change what the simulator of deployments does and judges: a
// judge that sees nothing would make every test of a rotation pass.
var simulatorMutations = []mutation{
	{"the simulator reports no changed byte of a configuration", "testsuite/simulator/textchanges.go",
		`return rotations, textChanges(before, undone)`, `return rotations, nil`, simulatorTests("EveryChangedByte|Violations")},
	{"the simulator takes a removed time for no change", "testsuite/simulator/textchanges.go",
		`if !known || was == is {`, `if !known || was == is || is == "" {`, simulatorTests("Violations")},
	{"the simulator does not report the added bytes of a change", "testsuite/simulator/textchanges.go",
		`e.added = append(e.added, b[j])`, `e.added = append(e.added, b[j][:0])`, simulatorTests("CompleteAndExact")},
	{"the simulator takes a comma with a time for a change", "testsuite/simulator/textchanges.go",
		`} else if from > copied && after[from-1] == ',' {`, `} else if from > len(after) {`, simulatorTests("TimesAreDistinguished")},
	{"the simulator does not report what a PUT undid", "testsuite/simulator/publications.go",
		`p.Overwrote = lost`, `p.Overwrote = lost[:0]`, simulatorTests("EveryChangedByte|Rivals")},
	{"the simulator does not judge two keys for one time", "testsuite/simulator/publications.go",
		`if acted[key] {`, `if acted[key] && r.NewKey == "" {`, simulatorTests("Violations")},
	{"the simulator does not judge a time that goes back", "testsuite/simulator/publications.go",
		`case !later(r.After, r.Before):`, `case !later(r.After, r.Before) && r.Before == "":`, simulatorTests("Violations")},
	{"a simulated agent acts on the same time again", "testsuite/simulator/agents.go",
		`if m.Agent.RotatesAgain && m.HandledGoal`, `if m.HandledGoal`, simulatorTests("LaterTimeOnly")},
	{"simulated members restart at the same time", "testsuite/simulator/agents.go",
		`if m.Acting || m.ErrorCode != 0 {`, `if m.ErrorCode != 0 {`, simulatorTests("OneMember")},
	{"simulated members go on beside one that is stuck", "testsuite/simulator/agents.go",
		`if m.Acting || m.ErrorCode != 0 {`, `if m.Acting {`, simulatorTests("TestAgents")},
	{"a simulated primary does not go last", "testsuite/simulator/agents.go",
		`return !m.Primary || t.waiting == 0`, `return true`, simulatorTests("ARotationOfADeployment")},
	{"a simulated process with a pinned key gets another one", "testsuite/simulator/agents.go",
		`if !m.Agent.KeepsKey && !d.pinned[m.Name] {`, `if !m.Agent.KeepsKey {`, simulatorTests("TestAgents")},
	{"a frozen goal moves in the simulator", "testsuite/simulator/agents.go",
		`if d.NextGoal != nil && !d.Conduct.GoalFrozen {`, `if d.NextGoal != nil {`, simulatorTests("VersionsAndGoals")},
	{"a simulated configuration without secrets has them", "testsuite/simulator/configtext.go",
		`if isSecret(name) && value[0] == '"' {`, `if isSecret(name) && value[0] == '{' {`, simulatorTests("DoesNotSurviveDecoding")},
	{"a PUT without secrets replaces them in the simulator", "testsuite/simulator/publications.go",
		`text = withSecretsOf(text, d.Text)`, `_ = withSecretsOf(text, d.Text)`, simulatorTests("OwnModifications")},
	{"a simulated snapshot is not from the member that was chosen", "testsuite/simulator/membersnapshots.go",
		`case slices.Contains(named, m.Name):`, `case slices.Contains(named, m.Name) && chosen == nil:`, simulatorTests("MemberSnapshots")},
	{"a failed rotation of a simulated member counts", "testsuite/simulator/agents.go",
		"m.ErrorCode, m.ErrorText, m.TriedAt = keyErrorCode, keyErrorText, s.now()\n\t\t\treturn", "made = \"made up\"", simulatorTests("KeysOfMembers")},
}
