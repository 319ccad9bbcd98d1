package simulator

import (
	"net/http"
	"time"
)

// The constructors below name what is known to go wrong with the configuration of
// a deployment. An empty project id means any project. Each makes a fault that
// meets one request.

func publicationFault(name, projectID string, apply Apply) Fault {
	return Fault{Name: name, Method: http.MethodPut, Kind: KindAutomationConfig, ProjectID: projectID, Apply: apply}
}

// inProject is a fault of the constructors in scenarios.go, for one kind of path
// of a project.
func (f Fault) inProject(projectID string, kind Kind) Fault {
	f.ProjectID, f.Kind = projectID, kind
	return f
}

// RivalAtRead lets somebody else act within a GET of the configuration.
func RivalAtRead(projectID string, r Rival) Fault {
	return Fault{
		Name: "rival at read: " + string(r.When) + " " + string(r.Change), Method: http.MethodGet,
		Kind: KindAutomationConfig, ProjectID: projectID, Rival: &r,
	}
}

// RivalAtPut lets somebody else act within a PUT of the configuration, which is
// applied and accepted.
func RivalAtPut(projectID string, r Rival) Fault {
	f := publicationFault("rival at put: "+string(r.When)+" "+string(r.Change), projectID, ApplyBefore)
	f.Rival = &r
	return f
}

// PublicationConflict answers 409 AUTOMATION_CONFIG_CONCURRENT_MODIFICATION and
// applies nothing. See Conduct.RefuseStale for one with a cause.
func PublicationConflict(projectID string) Fault {
	return errorFault(http.MethodPut, "", ApplyNo, http.StatusConflict, conflictCode, conflictDetail).inProject(projectID, KindAutomationConfig)
}

// PublicationServerError answers a PUT of the configuration with 500
// UNEXPECTED_ERROR.
func PublicationServerError(projectID string, apply Apply) Fault {
	return ServerError(http.MethodPut, "", apply).inProject(projectID, KindAutomationConfig)
}

// PublicationBadGateway answers a PUT of the configuration with a proxy's 502.
func PublicationBadGateway(projectID string, apply Apply) Fault {
	return ProxyError(http.MethodPut, "", http.StatusBadGateway, apply).inProject(projectID, KindAutomationConfig)
}

// PublicationCut closes the connection of a PUT of the configuration without an
// answer.
func PublicationCut(projectID string, apply Apply) Fault {
	f := publicationFault("publication cut", projectID, apply)
	f.Cut = CutNoAnswer
	return f
}

// PublicationHang never answers a PUT of the configuration.
func PublicationHang(projectID string, apply Apply) Fault {
	f := publicationFault("publication hang", projectID, apply)
	f.Hang = true
	return f
}

// PublicationAppliedLate never answers a PUT of the configuration, and applies it
// after the given time.
func PublicationAppliedLate(projectID string, after time.Duration) Fault {
	f := publicationFault("publication applied late", projectID, ApplyNo).AppliedAfter(after)
	f.Hang = true
	return f
}

// PublicationFrozen takes a PUT of the configuration and stands still: it answers
// nothing, and applies it the given time after ClearFaults.
func PublicationFrozen(projectID string, after time.Duration) Fault {
	f := publicationFault("publication frozen", projectID, ApplyNo).AppliedAfter(after)
	f.Gated = true
	return f
}

// PublicationGated applies every PUT of the configuration, and answers none before
// ClearFaults.
func PublicationGated(projectID string) Fault {
	f := publicationFault("publication gated", projectID, ApplyBefore)
	f.Gated = true
	return f.Always()
}

// PublicationUnchanging answers a PUT of the configuration with 200 and applies
// nothing.
func PublicationUnchanging(projectID string) Fault {
	return publicationFault("publication unchanging", projectID, ApplyNo)
}

// PublicationPage answers a PUT of the configuration with 200 and an HTML page, as
// a proxy with a form for a password does.
func PublicationPage(projectID string, apply Apply) Fault {
	f := publicationFault("publication page", projectID, apply)
	f.Status, f.ContentType, f.Body = http.StatusOK, contentTypeHTML, "<html><body>Sign in</body></html>"
	return f
}
