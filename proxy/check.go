package proxy

// Check says what Set would refuse.
func (p *Proxy) Check(r Routes) error {
	_, err := checkRoutes(r, p.own)
	return err
}
